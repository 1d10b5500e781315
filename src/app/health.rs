//! Health by recipe: the standard gRPC health service answers for `recipe/<name>@<version>`, too.

use std::collections::HashMap;

use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{services::inspect::InspectHandle, types::RecipeRef};

/// Says of every recipe whether it serves, and again whenever that changes. One that does not load, and one of whose sessions
/// failed its canary, is NOT_SERVING; one that is gone is not known. Ends with the service.
pub(super) async fn follow(mut reporter: HealthReporter, inspect: InspectHandle) {
    let mut changes = inspect.health();
    let mut known: HashMap<RecipeRef, ServingStatus> = HashMap::new();
    loop {
        changes.mark_unchanged();
        let now = statuses(&inspect);
        for recipe in known.keys().filter(|recipe| !now.contains_key(*recipe)) {
            reporter.clear_service_status(&service_name(recipe)).await;
        }
        for (recipe, status) in &now {
            if known.get(recipe) != Some(status) {
                reporter.set_service_status(service_name(recipe), *status).await;
            }
        }
        known = now;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Says it once, before anybody can ask.
pub(super) async fn report(reporter: &HealthReporter, inspect: &InspectHandle) {
    for (recipe, status) in statuses(inspect) {
        reporter.set_service_status(service_name(&recipe), status).await;
    }
}

fn statuses(inspect: &InspectHandle) -> HashMap<RecipeRef, ServingStatus> {
    let (book, poisoned) = (inspect.recipes(), inspect.poisoned());
    let ready = book.ready().map(|recipe| recipe.recipe.reference());
    let serving = ready.map(|recipe| {
        let status = if poisoned.contains(&recipe) { ServingStatus::NotServing } else { ServingStatus::Serving };
        (recipe, status)
    });
    let unavailable = book.unavailable().map(|(recipe, _)| (recipe.clone(), ServingStatus::NotServing));
    serving.chain(unavailable).collect()
}

fn service_name(recipe: &RecipeRef) -> String {
    format!("recipe/{recipe}")
}
