"""What clients may ask for, by whatever face."""
