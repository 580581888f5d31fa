"""How statements reach the database, over our connections or the application's, and how we hear of what it says."""
