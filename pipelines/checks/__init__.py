"""What refuses a source file as a whole, and what refuses a row."""
