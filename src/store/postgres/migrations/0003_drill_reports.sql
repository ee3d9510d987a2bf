-- What came of each scenario of a drill, as in the SQLite store.
CREATE TABLE tierway.drill_reports (
    scenario         text    COLLATE "C" NOT NULL PRIMARY KEY,
    finished_unix_ms bigint  NOT NULL,
    passed           boolean NOT NULL,
    report           text    NOT NULL
);
