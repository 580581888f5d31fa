"""Applications as users write them; the tests run workers for them."""
