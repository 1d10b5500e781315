//! Health by recipe: the standard gRPC health service answers for `recipe/<name>@<version>`, too.

use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{services::inspect::InspectHandle, types::RecipeRef};

/// Says of every recipe whether it serves. One that does not load is NOT_SERVING.
pub(super) async fn report(reporter: &HealthReporter, inspect: &InspectHandle) {
    for recipe in inspect.recipes().ready() {
        say(reporter, &recipe.recipe.reference(), ServingStatus::Serving).await;
    }
    for (recipe, _) in inspect.recipes().unavailable() {
        say(reporter, recipe, ServingStatus::NotServing).await;
    }
}

/// Says of a recipe that it does not serve when one of its sessions fails its canary. Ends with the service.
pub(super) async fn follow(reporter: HealthReporter, inspect: InspectHandle) {
    let mut poisoned = inspect.poisoned();
    loop {
        let recipes = poisoned.borrow_and_update().clone();
        for recipe in &recipes {
            say(&reporter, recipe, ServingStatus::NotServing).await;
        }
        if poisoned.changed().await.is_err() {
            return;
        }
    }
}

async fn say(reporter: &HealthReporter, recipe: &RecipeRef, status: ServingStatus) {
    reporter.set_service_status(format!("recipe/{recipe}"), status).await;
}
