"""The frame of every process: start and end, loops, periodic work, tasks, retries."""
