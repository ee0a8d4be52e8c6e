"""What every other package rests on: errors, registry, options, seeds, hashes, atomic files."""
