"""Pure torch maths: distributions, networks, factors, bounds, replicas, randomness."""
