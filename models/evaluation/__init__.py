"""How good scores are: metrics, baselines and the table that compares them."""
