"""Generated from proto/lineproof/v1 by generate.py."""
