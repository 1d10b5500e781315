//! `lineproof model list|activate|rollback|reload`: which recipe inspects a product, changed while the line runs.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{cli::DataArgs, client};
use crate::{
    core::model_signature::short,
    edge::pb::{
        ActivateRequest, ListRecipesRequest, ListRecipesResponse, RecipeStatus, RegistryResponse, ReloadRequest,
        RollBackRequest,
    },
    types::{ProductId, RecipeRef},
};

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Facts for machines instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// The recipe is tried, loaded and recorded before the first frame meets it. Frames under way are decided by the one they were
/// admitted under.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 done, 1 nothing was changed. `lineproof model rollback` takes it back. One change is made at a time: \
                  trying a new model takes up to a minute, and breaking the command off (Ctrl-C) does not stop it."
)]
pub struct ActivateArgs {
    /// The recipe, NAME@VERSION, in the recipe folder
    #[arg(value_name = "RECIPE")]
    recipe: RecipeRef,
    /// The product whose frames it inspects
    #[arg(long, value_name = "PRODUCT")]
    product: ProductId,
    /// Facts for machines instead of sentences
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The product whose former recipe inspects it again
    #[arg(long, value_name = "PRODUCT")]
    product: ProductId,
    /// Facts for machines instead of sentences
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// New recipes are tried and loaded beside the work that goes on; of recipes in use nothing changes.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 everything in the folder serves, 1 something does not.")]
pub struct ReloadArgs {
    /// Facts for machines instead of sentences
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// # Errors
/// When the data directory does not answer.
pub fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let answer = client::with_office(&args.data.data, async |office| {
        office.registry().list_recipes(ListRecipesRequest {}).await.map_err(client::said)
    })?;
    let answer = answer.into_inner();
    if args.json {
        let recipe = |recipe: &RecipeStatus| {
            let reason = (!recipe.reason.is_empty()).then_some(&recipe.reason);
            let digest = (!recipe.digest.is_empty()).then_some(&recipe.digest);
            let signer = (!recipe.signer.is_empty()).then_some(&recipe.signer);
            let provider = (!recipe.provider.is_empty()).then_some(&recipe.provider);
            json!({ "recipe": recipe.recipe, "digest": digest, "reason": reason, "products": recipe.products,
                "provider": provider, "fell_back": recipe.fell_back, "signer": signer })
        };
        let recipes: Vec<_> = answer.recipes.iter().map(recipe).collect();
        println!("{}", json!({ "recipes": recipes, "running": answer.is_running }));
    } else {
        print!("{}", table(&answer));
    }
    Ok(ExitCode::SUCCESS)
}

/// # Errors
/// When nothing was changed, with the reason.
pub fn activate(args: &ActivateArgs) -> anyhow::Result<ExitCode> {
    let request = ActivateRequest { product: args.product.to_string(), recipe: args.recipe.to_string() };
    let answer = client::with_office(&args.data.data, async |office| {
        office.registry().activate(request).await.map_err(client::said)
    })?;
    tell(&answer.into_inner(), args.json, &format!("{} is inspected by {} already", args.product, args.recipe));
    Ok(ExitCode::SUCCESS)
}

/// # Errors
/// When nothing was changed, with the reason.
pub fn roll_back(args: &RollbackArgs) -> anyhow::Result<ExitCode> {
    let request = RollBackRequest { product: args.product.to_string() };
    let answer = client::with_office(&args.data.data, async |office| {
        office.registry().roll_back(request).await.map_err(client::said)
    })?;
    let nothing = format!(
        "the latest change of {} had not been taken up; lineproof.toml names the recipe in use again",
        args.product
    );
    tell(&answer.into_inner(), args.json, &nothing);
    Ok(ExitCode::SUCCESS)
}

/// # Errors
/// When nothing was changed, with the reason.
pub fn reload(args: &ReloadArgs) -> anyhow::Result<ExitCode> {
    let answer = client::with_office(&args.data.data, async |office| {
        office.registry().reload(ReloadRequest {}).await.map_err(client::said)
    })?;
    let answer = answer.into_inner();
    let nothing = "no service runs on this data directory: the next start takes up everything";
    tell(&answer, args.json, if answer.is_running { "nothing is new" } else { nothing });
    Ok(ExitCode::from(u8::from(!answer.refused.is_empty())))
}

fn tell(answer: &RegistryResponse, json: bool, nothing: &str) {
    if json {
        println!("{}", facts(answer));
    } else {
        print!("{}", words(answer, nothing));
    }
}

fn facts(answer: &RegistryResponse) -> serde_json::Value {
    let assigned = answer.assigned.iter().map(|assigned| {
        let previous = (!assigned.previous.is_empty()).then_some(&assigned.previous);
        json!({ "product": assigned.product, "recipe": assigned.recipe, "previous": previous })
    });
    let refused = answer.refused.iter().map(|refused| json!({ "recipe": refused.recipe, "reason": refused.reason }));
    json!({
        "activated": answer.activated,
        "retired": answer.retired,
        "refused": refused.collect::<Vec<_>>(),
        "assigned": assigned.collect::<Vec<_>>(),
        "unassigned": answer.unassigned,
        "recorded": answer.recorded,
        "running": answer.is_running,
    })
}

fn words(answer: &RegistryResponse, nothing: &str) -> String {
    let mut text = String::new();
    let mut say = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    answer.activated.iter().for_each(|recipe| say(format!("{recipe} is loaded and serves")));
    answer.retired.iter().for_each(|recipe| say(format!("{recipe} is gone from the folder and serves no more")));
    for assigned in &answer.assigned {
        let before =
            if assigned.previous.is_empty() { String::new() } else { format!(", before by {}", assigned.previous) };
        say(format!("{} is inspected by {}{before}", assigned.product, assigned.recipe));
    }
    for product in &answer.unassigned {
        say(format!("{product} has no recipe any more: its frames must name one"));
    }
    answer.refused.iter().for_each(|refused| say(format!("{} does not serve: {}", refused.recipe, refused.reason)));
    if text.is_empty() {
        return format!("{nothing}\n");
    }
    if !answer.is_running {
        text.push_str("no service runs on this data directory: it takes effect at the next start\n");
    } else if let [entries @ .., last] = answer.recorded.as_slice() {
        let _ = match entries.first() {
            Some(first) => writeln!(text, "recorded as entries {first} to {last}"),
            None => writeln!(text, "recorded as entry {last}"),
        };
    }
    text
}

fn table(answer: &ListRecipesResponse) -> String {
    if answer.recipes.is_empty() {
        return "no recipe in the recipe folder\n".into();
    }
    let width = answer.recipes.iter().map(|recipe| recipe.recipe.len()).max().unwrap_or_default();
    let mut text = String::new();
    for recipe in &answer.recipes {
        let state = match (answer.is_running, recipe.reason.as_str()) {
            (true, "") if recipe.fell_back.is_empty() => format!("serves on {}", recipe.provider),
            (true, "") => format!("serves on {} INSTEAD: {}", recipe.provider, recipe.fell_back.join("; ")),
            (false, "") => "no service runs".to_owned(),
            (_, reason) => format!("does not serve: {reason}"),
        };
        let products = match recipe.products.as_slice() {
            [] => String::new(),
            products => format!("; inspects {}", products.join(", ")),
        };
        let signed = recipe.signer.parse().map_or_else(|_| String::new(), |key| format!("; signed by {}", short(key)));
        let _ = writeln!(text, "{:width$}  {state}{products}{signed}", recipe.recipe);
    }
    text
}
