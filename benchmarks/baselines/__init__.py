"""What the machine does without the services: bare handlers, drivers, disk, nginx."""
