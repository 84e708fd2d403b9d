mod element;
mod networks;
mod reconcile;
