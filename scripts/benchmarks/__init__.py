"""The parts of scripts/benchmark.py: what races, and what is made of the times."""
