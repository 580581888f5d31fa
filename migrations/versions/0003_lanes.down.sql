DROP TABLE pgjobs.lanes;
