-- What came of each scenario of a drill, the last time that it was run to its end.
CREATE TABLE drill_reports (
    scenario         TEXT    NOT NULL PRIMARY KEY,
    finished_unix_ms INTEGER NOT NULL,
    passed           INTEGER NOT NULL,
    -- {"configuration", "region", "policies", "checks": [[name, measured, objective or null, detail, passed], …]}
    report           TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
