"""How the arguments of a function, and what it returns, become JSON and come back."""
