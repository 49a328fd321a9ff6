"""What is computed about users and items, on Spark."""
