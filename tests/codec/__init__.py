"""What is stored: bytes made and read again."""
