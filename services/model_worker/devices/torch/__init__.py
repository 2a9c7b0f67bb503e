"""Any device that torch knows."""
