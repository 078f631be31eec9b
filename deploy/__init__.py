"""What runs the services somewhere: images, manifests, and the sandbox."""
