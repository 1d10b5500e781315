//! `RegistryService`: recipes and the products they inspect, for the operator on the machine.

use std::sync::Arc;

use tonic::{Code, Request, Response, Status};

use super::{
    convert::field,
    pb::{self, registry_service_server::RegistryService as Api},
};
use crate::{
    ports::lineage::AppendError,
    services::registry::{Changes, RecipeStatus, RegistryError, RegistryService},
};

/// The gRPC face of [`RegistryService`].
pub struct RegistryEdge {
    service: Arc<RegistryService>,
}

impl RegistryEdge {
    #[must_use]
    pub fn new(service: Arc<RegistryService>) -> Self {
        Self { service }
    }

    /// Runs `work` on a thread that may block on the disk and on models. It goes on when the caller leaves.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&RegistryService) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, Status> {
        let service = self.service.clone();
        match tokio::task::spawn_blocking(move || work(&service)).await {
            Ok(result) => result.map_err(|error| status(&error)),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    async fn change(
        &self,
        work: impl FnOnce(&RegistryService) -> Result<Changes, RegistryError> + Send + 'static,
    ) -> Result<Response<pb::RegistryResponse>, Status> {
        let changes = self.blocking(work).await?;
        Ok(Response::new(response(changes, self.service.running.is_some())))
    }
}

#[tonic::async_trait]
impl Api for RegistryEdge {
    async fn list_recipes(
        &self,
        _request: Request<pb::ListRecipesRequest>,
    ) -> Result<Response<pb::ListRecipesResponse>, Status> {
        let recipes = self.blocking(RegistryService::list).await?.into_iter().map(recipe).collect();
        Ok(Response::new(pb::ListRecipesResponse { recipes, is_running: self.service.running.is_some() }))
    }

    async fn activate(&self, request: Request<pb::ActivateRequest>) -> Result<Response<pb::RegistryResponse>, Status> {
        let pb::ActivateRequest { product, recipe } = request.into_inner();
        let (product, recipe) = (field("product", product)?, field("recipe", recipe)?);
        self.change(move |service| service.activate(&product, &recipe)).await
    }

    async fn roll_back(&self, request: Request<pb::RollBackRequest>) -> Result<Response<pb::RegistryResponse>, Status> {
        let product = field("product", request.into_inner().product)?;
        self.change(move |service| service.roll_back(&product)).await
    }

    async fn reload(&self, _request: Request<pb::ReloadRequest>) -> Result<Response<pb::RegistryResponse>, Status> {
        self.change(RegistryService::refresh).await
    }
}

fn recipe(status: RecipeStatus) -> pb::RecipeStatus {
    pb::RecipeStatus {
        recipe: status.recipe.to_string(),
        digest: status.record.map(|record| record.digest.to_string()).unwrap_or_default(),
        reason: status.reason.unwrap_or_default(),
        provider: status.tried.as_ref().map(|tried| tried.provider.to_string()).unwrap_or_default(),
        fell_back: status.tried.map(|tried| tried.not).unwrap_or_default(),
        products: status.products.iter().map(ToString::to_string).collect(),
        signer: status.signer.map(|signer| signer.to_string()).unwrap_or_default(),
    }
}

fn response(changes: Changes, is_running: bool) -> pb::RegistryResponse {
    use pb::registry_response::{Assigned, Refused};

    let names = |recipes: Vec<crate::types::RecipeRef>| recipes.iter().map(ToString::to_string).collect();
    let refused = changes.refused.into_iter();
    let assigned = changes.assigned.into_iter().map(|assigned| Assigned {
        product: assigned.product.to_string(),
        recipe: assigned.recipe.to_string(),
        previous: assigned.previous.map(|recipe| recipe.to_string()).unwrap_or_default(),
    });
    pb::RegistryResponse {
        activated: names(changes.activated),
        retired: names(changes.retired),
        refused: refused.map(|(recipe, reason)| Refused { recipe: recipe.to_string(), reason }).collect(),
        assigned: assigned.collect(),
        unassigned: changes.unassigned.iter().map(ToString::to_string).collect(),
        recorded: changes.recorded.into_iter().map(|index| index.0).collect(),
        is_running,
    }
}

fn status(error: &RegistryError) -> Status {
    let code = match error {
        RegistryError::NoRecipe { .. } | RegistryError::NoProduct(_) => Code::NotFound,
        RegistryError::Unavailable { .. } | RegistryError::Changed(_) | RegistryError::NothingBefore { .. } => {
            Code::FailedPrecondition
        }
        RegistryError::Append(AppendError::DiskReserve { .. }) => Code::ResourceExhausted,
        RegistryError::Append(AppendError::ReadOnly(_)) => Code::FailedPrecondition,
        RegistryError::Append(_) => Code::Unavailable,
        RegistryError::Shelf(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
