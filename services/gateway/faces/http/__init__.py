"""What all HTTP faces share."""
