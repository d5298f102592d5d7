"""What leaves a run: exported generators."""
