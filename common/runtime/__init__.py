"""What every process is made of: start and end, loops, periodic work, tasks, retries."""
