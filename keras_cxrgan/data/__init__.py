"""From files to arrays: records, images, prepared sets, batches."""
