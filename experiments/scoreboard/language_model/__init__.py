"""The language models' scoreboard: what faults cost them, and what each treatment wins back, in nats."""
