//! References to the read models of other projections, looked at when they are deployed.

use tokio_postgres::Transaction;

use super::DeployError;
use crate::descriptor::Descriptor;
use crate::read_model::schema;

/// Refuses a reference that does not fit the live tables of another projection. What is not deployed yet, or has no table,
/// is no obstacle: nothing can be embedded until it is there.
pub(super) async fn check(
    transaction: &Transaction<'_>,
    descriptor: &Descriptor,
) -> Result<(), DeployError> {
    let is_own = |name: &str| {
        descriptor
            .read_models
            .iter()
            .any(|model| model.name == name)
    };
    let targets: Vec<&str> = (descriptor.read_models.iter())
        .flat_map(|model| &model.references)
        .map(|reference| reference.target.as_str())
        .filter(|target| !is_own(target))
        .collect();
    if targets.is_empty() {
        return Ok(());
    }
    // The descriptor's own projection is left out: a read model that it gives up is nothing to refer to.
    let rows = transaction
        .query(include_str!("referred.sql"), &[&targets, &descriptor.name])
        .await?;
    for row in rows {
        let tables = schema::read_tables(transaction, row.get(0)).await?;
        for model in &descriptor.read_models {
            for reference in &model.references {
                let target = tables.iter().find(|table| table.name == reference.target);
                let Some(target) = target.filter(|target| !is_own(&target.name)) else {
                    continue;
                };
                reference
                    .resolve(model, target)
                    .map_err(|why| DeployError::Reference {
                        read_model: model.name.clone(),
                        reference: reference.name.clone(),
                        why,
                    })?;
            }
        }
    }
    Ok(())
}
