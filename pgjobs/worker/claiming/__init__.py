"""How a worker takes jobs and gives them back: where it looks, what it holds, and how it records their ends."""
