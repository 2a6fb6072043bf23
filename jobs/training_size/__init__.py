"""The wiring of the job `scaling`: its plan, rows, trainings and cost."""
