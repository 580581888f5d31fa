"""Where jobs run: on an event loop, on threads, in processes of their own."""
