"""What an agent does about jobs: it drives those that it coordinates, and keeps its part of all others."""
