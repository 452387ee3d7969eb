"""Where the brain is in a whole head: atlas heads with known brains, carried to it."""
