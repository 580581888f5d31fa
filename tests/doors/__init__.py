"""Programs as users of other queues write them, with the imports and the constructor changed."""
