"""The commands of topocal: each job opens inputs, computes, writes outputs and a run record."""
