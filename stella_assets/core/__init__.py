"""What every room builds on: configuration, registries, steps, the runner, manifests, engines."""
