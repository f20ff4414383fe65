"""What every service and the ship itself said: kept, looked up, followed."""
