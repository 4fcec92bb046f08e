"""How well the answers are: recall against brute force, error rates, and the galleries to measure them on."""
