//! Deliberate faults, each to be found by the check that is meant for it.
//!
//! A mutant is a trigger in the database, a lie in the configuration, or usage by another convention than its dialect's:
//! nothing of the gateway is changed, its statements are, or what it is told.

use crate::dialect::Dialect;
use crate::fixture::DISABLED_LINE;
use crate::run::Scenario;
use rusqlite::Connection;
use std::path::Path;
use std::time::Duration;

/// A fault by its name.
pub struct Mutant {
    pub name: &'static str,
    /// The check that must find it.
    pub caught_by: &'static str,
    pub killed: bool,
    fault: Fault,
}

enum Fault {
    /// A trigger of the database.
    Trigger(&'static str),
    /// What is written in the configuration in the place of something else.
    Lie(&'static [(&'static str, &'static str)]),
    /// Usage of this dialect that says otherwise than its API what counts as input: so would a gateway that misreads it.
    OtherWay(Dialect),
}
use Fault::{Lie, OtherWay, Trigger};

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "settle_forgets",
        caught_by: "ledger_balances",
        killed: false,
        fault: Trigger(
            "AFTER UPDATE ON budgets WHEN NEW.spent_nanousd > OLD.spent_nanousd BEGIN
            UPDATE budgets SET spent_nanousd = spent_nanousd - 1 WHERE scope = NEW.scope AND name = NEW.name
                AND window = NEW.window AND start_ms = NEW.start_ms; END",
        ),
    },
    Mutant {
        name: "lease_released_instead_of_spent",
        caught_by: "within_limit",
        killed: false,
        fault: Trigger(
            "AFTER UPDATE ON budgets WHEN NEW.spent_nanousd > OLD.spent_nanousd BEGIN
            UPDATE budgets SET spent_nanousd = OLD.spent_nanousd WHERE scope = NEW.scope AND name = NEW.name
                AND window = NEW.window AND start_ms = NEW.start_ms; END",
        ),
    },
    Mutant {
        name: "charged_to_an_older_window",
        caught_by: "covered",
        killed: false,
        fault: Trigger(
            "AFTER UPDATE ON budgets WHEN NEW.spent_nanousd > OLD.spent_nanousd AND EXISTS (SELECT 1 FROM budgets
            WHERE scope = NEW.scope AND name = NEW.name AND window = NEW.window AND start_ms < NEW.start_ms) BEGIN
            UPDATE budgets SET spent_nanousd = spent_nanousd + NEW.spent_nanousd - OLD.spent_nanousd
                WHERE (scope, name, window, start_ms) = (SELECT scope, name, window, min(start_ms) FROM budgets
                    WHERE scope = NEW.scope AND name = NEW.name AND window = NEW.window);
            UPDATE budgets SET spent_nanousd = OLD.spent_nanousd WHERE scope = NEW.scope AND name = NEW.name
                AND window = NEW.window AND start_ms = NEW.start_ms; END",
        ),
    },
    Mutant {
        name: "receipt_twice",
        caught_by: "one_line_each",
        killed: false,
        // The columns are filled in: later versions may have more.
        fault: Trigger(
            "AFTER INSERT ON receipts WHEN NEW.cost_nanousd > 0 BEGIN
            INSERT INTO receipts SELECT substr(id, 1, 8) || randomblob(8), {columns} FROM receipts WHERE id = NEW.id;
            END",
        ),
    },
    Mutant {
        name: "receipt_lost",
        caught_by: "one_line_each",
        killed: false,
        fault: Trigger(
            "AFTER INSERT ON receipts WHEN NEW.id > x'' AND abs(random()) % 50 = 0 BEGIN
            DELETE FROM receipts WHERE id = NEW.id; END",
        ),
    },
    Mutant {
        name: "cost_off_by_one",
        caught_by: "lines_exact",
        killed: false,
        fault: Trigger(
            "AFTER INSERT ON receipts WHEN NEW.cost_nanousd > 0 AND NOT NEW.estimated BEGIN
            UPDATE receipts SET cost_nanousd = cost_nanousd + 1 WHERE id = NEW.id; END",
        ),
    },
    Mutant {
        name: "estimate_forgets_the_input",
        caught_by: "estimated_between",
        killed: false,
        fault: Trigger(
            "AFTER INSERT ON receipts WHEN NEW.estimated BEGIN
            UPDATE receipts SET cost_nanousd = coalesce(output_tokens, 0) * 2000 WHERE id = NEW.id; END",
        ),
    },
    Mutant {
        name: "loser_not_booked",
        caught_by: "estimated_between",
        killed: false,
        fault: Trigger(
            "AFTER INSERT ON receipts WHEN instr(NEW.attempts, 'overtaken') > 0 AND NEW.input_pico IS NOT NULL BEGIN
            UPDATE receipts SET cost_nanousd = ((input_tokens - cached_input_tokens) * input_pico
                + cached_input_tokens * cached_input_pico + output_tokens * output_pico) / 1000 WHERE id = NEW.id; END",
        ),
    },
    Mutant {
        name: "price_of_another_day",
        caught_by: "price_in_force",
        killed: false,
        fault: Trigger(
            "AFTER INSERT ON receipts WHEN NEW.input_pico IS NOT NULL BEGIN
            UPDATE receipts SET input_pico = input_pico + 1 WHERE id = NEW.id; END",
        ),
    },
    Mutant {
        name: "crash_forgets",
        caught_by: "ledger_balances",
        killed: true,
        fault: Trigger("BEFORE INSERT ON unaccounted BEGIN SELECT RAISE(IGNORE); END"),
    },
    Mutant {
        name: "crash_gives_back",
        caught_by: "covered",
        killed: true,
        fault: Trigger(
            "AFTER INSERT ON unaccounted BEGIN
            UPDATE budgets SET leased_nanousd = 0 WHERE leased_nanousd > 0;
            DELETE FROM unaccounted; END",
        ),
    },
    Mutant {
        name: "lease_stays_open",
        caught_by: "nothing_left",
        killed: false,
        fault: Trigger(
            "AFTER UPDATE ON budgets WHEN NEW.leased_nanousd < OLD.leased_nanousd BEGIN
            UPDATE budgets SET leased_nanousd = leased_nanousd + 1 WHERE scope = NEW.scope AND name = NEW.name
                AND window = NEW.window AND start_ms = NEW.start_ms; END",
        ),
    },
    Mutant {
        name: "ceiling_by_another_name",
        caught_by: "as_held",
        killed: false,
        fault: Lie(&[("max_tokens_name = \"max_completion_tokens\"", "max_tokens_name = \"max_tokens\"")]),
    },
    Mutant {
        name: "left_as_if_it_stopped",
        caught_by: "estimated_between",
        killed: false,
        fault: Lie(&[
            ("on_abandon = \"read_on\"", "on_abandon = \"estimate\""),
            ("on_abandon = \"charge_hold\"", "on_abandon = \"estimate\""),
        ]),
    },
    Mutant {
        name: "messages_cache_counted_twice",
        caught_by: "lines_exact",
        killed: false,
        fault: OtherWay(Dialect::Messages),
    },
    Mutant {
        name: "responses_cache_beside_the_input",
        caught_by: "lines_exact",
        killed: false,
        fault: OtherWay(Dialect::Responses),
    },
    Mutant { name: "disabled_key_served", caught_by: "disabled", killed: false, fault: Lie(&[(DISABLED_LINE, "")]) },
    Mutant {
        name: "granted_twice",
        caught_by: "within_limit",
        killed: false,
        fault: Trigger(
            "AFTER INSERT ON grants BEGIN
            UPDATE grants SET amount_nanousd = 2 * amount_nanousd WHERE id = NEW.id; END",
        ),
    },
];

impl Mutant {
    pub fn named(name: &str) -> Option<&'static Self> {
        MUTANTS.iter().find(|mutant| mutant.name == name)
    }

    /// What happens to the gateway while it is looked for.
    pub fn scenario(&self) -> Scenario {
        if self.killed { Scenario::Killed(8) } else { Scenario::Calm }
    }

    /// The dialect whose usage the provider writes by another convention.
    pub fn other_way(&self) -> Option<Dialect> {
        match self.fault {
            OtherWay(dialect) => Some(dialect),
            Trigger(_) | Lie(_) => None,
        }
    }

    /// `file`, with its lie.
    pub fn write(&self, file: String) -> String {
        let Lie(lies) = self.fault else { return file };
        lies.iter().fold(file, |file, (truth, lie)| file.replace(truth, lie))
    }

    /// Puts it into the database in `folder`, beside the gateway.
    pub fn plant(&self, folder: &Path) {
        let Trigger(trigger) = self.fault else { return };
        let database = Connection::open(folder.join("tierway.db")).expect("the database is there");
        database.busy_timeout(Duration::from_secs(5)).expect("it is set");
        let mut columns = database.prepare("SELECT name FROM pragma_table_info('receipts') WHERE name <> 'id'");
        let columns = columns.as_mut().expect("the table is there").query_map([], |row| row.get::<_, String>(0));
        let columns: Vec<String> = columns.expect("it is read").map(|name| name.expect("a name")).collect();
        let trigger = trigger.replace("{columns}", &columns.join(", "));
        database.execute_batch(&format!("CREATE TRIGGER {} {trigger}", self.name)).expect("it is SQL");
    }
}
