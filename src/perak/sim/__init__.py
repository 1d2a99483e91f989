"""What would have been: traces of jobs and of the grid, run through the policies that the exchange uses."""
