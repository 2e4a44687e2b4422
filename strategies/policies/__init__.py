"""Selection policies, one a file, and what they compute with."""
