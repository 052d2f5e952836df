"""Jobs: what was asked for over HTTP, durable from before the answer until its retention is over."""
