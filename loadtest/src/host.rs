//! What else a machine did while it made load, and whether that disturbed the run.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    outcome::{Host, Outcome},
    tally::Timed,
    words::time_text,
};

/// A thread or server busy for this share of a core sets the pace.
pub(crate) const BUSY: f64 = 0.90;
/// A run is disturbed where a hypervisor gave so much of the machine to others,
const STOLEN: f64 = 0.02;
/// where other processes used so much of it,
const OTHERS: f64 = 0.10;
/// or where this program came so late to its own schedule (the 99th percentile, in microseconds), and was not busy.
const LAG_US: f64 = 1000.0;

/// What else the machine did: in cores, and what of it disturbed the run.
pub(crate) fn judge(outcome: &Outcome) -> (Value, Vec<String>) {
    let elapsed = outcome.elapsed.as_secs_f64().max(1e-9);
    let lag = outcome.timed.iter().find(|(what, _)| *what == Timed::Lag);
    let lag_us = lag.map(|(_, lags)| lags.value_at_quantile(0.99) as f64 / 1e3);
    let is_busy = outcome.cpu.busiest.as_secs_f64() / elapsed >= BUSY;
    let mut why = Vec::new();
    if let Some(late) = lag_us.filter(|late| *late > LAG_US && !is_busy) {
        why.push(format!("this program came up to {} late to its own schedule (p99)", time_text(late)));
    }
    let mut value = json!({"stolen_cores": null, "others_cores": null});
    if let Some(Host { processors, stolen, others }) = outcome.host {
        let cores = |time: Duration| time.as_secs_f64() / elapsed;
        value["stolen_cores"] = json!(cores(stolen));
        value["others_cores"] = json!(others.map(cores));
        if cores(stolen) / processors as f64 > STOLEN {
            why.push(format!("the hypervisor gave {:.2} of {processors} cores to others", cores(stolen)));
        }
        if let Some(others) = others.map(cores).filter(|others| others / processors as f64 > OTHERS) {
            why.push(format!("other processes used {others:.2} of {processors} cores"));
        }
    }
    value["disturbed"] = json!(!why.is_empty());
    (value, why)
}
