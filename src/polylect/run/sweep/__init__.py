"""Sweeps: jobs in processes of their own, wherever a launcher starts them, and their ledger."""
