"""The protocol as a model that is compared, step by step, with what PostgreSQL makes of the same statements."""
