DROP TABLE pgjobs.alerts;
