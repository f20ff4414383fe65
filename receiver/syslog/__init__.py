"""The journal sent on to receivers of syslog."""
