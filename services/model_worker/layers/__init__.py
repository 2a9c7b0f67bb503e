"""What models are made of, split over the ranks."""
