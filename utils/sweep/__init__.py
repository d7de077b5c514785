"""A sweep: many trainings whose settings differ, in processes of their own, ranked."""
