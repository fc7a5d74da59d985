"""Training: phases as a table, one loop for all of them, runs that survive being killed."""
