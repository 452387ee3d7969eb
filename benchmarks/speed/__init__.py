"""How fast medtrans is, measured against what the machine can do."""
