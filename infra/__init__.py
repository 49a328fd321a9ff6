"""What runs the planes' engines."""
